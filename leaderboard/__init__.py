"""The leaderboard: reads records, writes a static site."""
