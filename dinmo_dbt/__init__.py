"""dinmo-dbt: dbt models to Salesforce records. The command line is the public interface."""

__version__ = "0.1.0"
