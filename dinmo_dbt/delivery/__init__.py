"""A plan on its way to Salesforce: the journal first, then the act, then what became of it."""
