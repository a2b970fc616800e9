"""What a user asks of a conversion: options, splits, a recipe. Read first: `options`."""
