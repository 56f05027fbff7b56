"""The microservice chassis that every Slipway service stands on."""
