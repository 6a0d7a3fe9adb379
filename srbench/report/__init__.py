"""Tables, figures and the page of a run, written from its records."""
