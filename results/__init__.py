"""Records of what was measured, and what is made of them: tables and reports."""
