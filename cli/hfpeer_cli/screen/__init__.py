"""What a terminal shows: its abilities, tables that fit its width, bars."""
