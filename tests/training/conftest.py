"""One thread for every test of this folder."""

from small_jobs import one_thread as one_thread
