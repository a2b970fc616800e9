"""The commands: a file for each noun or verb. A command imports another only to print the same lines."""
