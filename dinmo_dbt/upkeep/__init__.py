"""Records that Salesforce holds already: compared, taken over, brought back."""
