"""Trustee's Key Broker Service: read keys as a guest, register them as its administrator."""
