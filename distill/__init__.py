"""A compact CFP-only student taught by the teacher."""
