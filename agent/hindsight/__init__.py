"""Looking back at strips that have been judged: replay and collect. Nothing here changes what was said."""
