"""Student networks: small models that learn from a teacher."""
