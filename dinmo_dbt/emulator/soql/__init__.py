"""SOQL: its grammar, its translation to SQL, its answers."""
