"""What the node gives to Hugging Face tools that ask it as if it were the Hub: revisions, listings, info, files."""
