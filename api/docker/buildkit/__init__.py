"""BuildKit's entrance: `POST /session`, `POST /grpc`, and `POST /build` with version 2."""
