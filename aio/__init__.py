"""Structured concurrency for flota: the only home of free-standing tasks."""
