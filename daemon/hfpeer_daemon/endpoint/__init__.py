"""The endpoint: the Hub over HTTP, for Hugging Face tools. Read first: `app`."""
