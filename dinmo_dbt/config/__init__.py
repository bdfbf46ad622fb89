"""What the user writes: dinmo.yml and the `dinmo` blocks of models, read strictly."""
