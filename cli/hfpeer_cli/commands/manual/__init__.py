"""The manual: help of commands and topics, and man pages, from one text."""
