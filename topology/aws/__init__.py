"""What a topology is on AWS: its shape, what AWS offers (a dated catalogue), and how a VPC's addresses are divided."""
