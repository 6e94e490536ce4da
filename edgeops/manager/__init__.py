"""The only joint: brings store, broker and the pure rooms together.

Knows: how a device enrols, how its messages become events, how events become stored state and then messages, how streams are
served. Verifies and stores releases, never makes them: no release key is ever read here.
Does not know: HTTP, the forge, how a release was made. Who may enter: `api` and `cli`.
"""
