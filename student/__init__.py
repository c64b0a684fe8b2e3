"""The students: small networks that a teacher trains."""
