"""What runs leave behind: manifests, names and marks of their folders, what stays and what goes."""
