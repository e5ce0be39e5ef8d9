"""The mathematics: pure functions on arrays and torch distributions; knows neither SB3 nor the rest of the package."""
