"""The process that decodes pictures for the page: what cameras wrote is hostile, and C libraries decode it."""
