"""What objects and fields are, and where they come from: built in, SFDX trees; how they are described."""
