"""Tests of the page in a real browser, in processes that gevent has not patched: see conftest.py."""
