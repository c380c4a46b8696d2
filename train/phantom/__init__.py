"""Seeded synthetic eyes: one latent eye rendered as CFP and two OCT B-scans."""
