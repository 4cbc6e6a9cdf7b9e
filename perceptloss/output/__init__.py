"""What leaves the program: files, tables and progress bars. Light to import: no torch, no numpy."""
