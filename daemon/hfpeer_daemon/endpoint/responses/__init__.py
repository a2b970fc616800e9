"""JSON and errors in the Hub's form."""
