"""Push: revisions brought to another machine over ssh, in three ways. Start with `push`."""
