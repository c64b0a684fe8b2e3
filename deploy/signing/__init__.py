"""Signed bundles: who made a bundle, and that nobody has changed it since (Ed25519; `pip install 'edgedistill[sign]'`).

    keys       key files, and the ids of keys
    envelope   signatures over any bytes (DSSE)
    bundle     what a bundle's signature covers; signing and checking
    sbom       what a bundle consists of, as CycloneDX

`deploy.load(..., trusted_keys=[...])` refuses what is not signed; SECURITY.md says what that protects, and what not.
"""
