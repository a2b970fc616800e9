"""The pictures and sounds of rows: found, and written as files, as references or as text. Never decoded."""
