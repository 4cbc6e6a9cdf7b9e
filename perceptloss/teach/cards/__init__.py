"""Model cards of critics that were taught here."""
