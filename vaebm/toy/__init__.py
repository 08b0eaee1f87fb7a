"""VAEBM on points of the plane, where every likelihood can be integrated exactly (the 25-Gaussians toy of the paper)."""
