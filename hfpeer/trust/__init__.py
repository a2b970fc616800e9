"""Who may see a commit, and which answer for a name counts. Pure; tables in docs/en/reference/trust.md."""
