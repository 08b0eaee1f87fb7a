"""Training: stage 1 (vae), stage 2 (ebm), and the loop, guard, buffer and export they share with the baselines."""
