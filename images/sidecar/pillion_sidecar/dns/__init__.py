"""The provider table as answers to DNS queries."""
