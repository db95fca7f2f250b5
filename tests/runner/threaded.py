"""A module that starts a thread as it is imported, after which a process must not be forked."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
