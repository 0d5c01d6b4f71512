"""All numbers that bound the client's memory, its requests and its patience. Times are in milliseconds."""

MAX_OUTBOX = 1_000
"""Commands that wait for their acks. Further ones raise OutboxFull."""
MAX_REQUESTS = 1_000
"""Reads and marks that wait for an answer. Further ones raise OutboxFull."""
MAX_OPEN = 500
"""Open conversations. The server's default lets a socket join as many."""
MAX_IDLE = 1_000
"""Conversations that are not open but whose last own messages are kept."""
MAX_PLACES = 10_000
"""Cursors kept of followed conversations that gave up their place to more active ones."""
MAX_HELD = 1_000
"""Entries of one conversation that wait behind a gap. The server sends further ones again."""
MAX_QUEUE = 1_000
"""Changes that wait in one iterator. Then they are replaced by one `reset`."""
MAX_UNSENT = 5_000
"""Frames that wait for the socket. Beyond it the socket counts as dead."""
MAX_FRAME_BYTES = 4 * 1024 * 1024
"""The longest frame that the client accepts. Answers of the server have at most 256 KiB by default."""
KEEP_MESSAGES = 1_000
"""Messages of an open conversation kept in memory, unless `load_older` asked for more."""
KEEP_MESSAGES_IDLE = 50
"""Own messages kept of a conversation that is not open."""
PAGE = 50
"""Messages on a page of history."""
HEAVY_AT_ONCE = 4
"""Reads of history, searches and lists on their way at a time. The server runs two and lets eight wait."""
REQUEST_TRIES = 6
"""Attempts at a request of the application that the server refuses with `retryable`."""

SYNC_CHUNK = 400
"""Conversations in one `sync`, so that the longest ids fit into a frame of 64 KiB."""
GAP_MS = 5_000
"""How long a gap in the seqs may last before the entries are asked for again."""
GAP_TRIES = 2
"""Attempts to close a gap at one cursor before the newest page is read."""
PAUSE_MIN_MS = 1_000
PAUSE_MAX_MS = 30_000
"""Bounds of the pause after a failure. It doubles each time and has a jitter of up to a half."""
COMMAND_TIMEOUT_MS = 60_000
"""How long a command waits for its answer before it is sent again. The server answers within about 20 s."""
TOKEN_TIMEOUT_MS = 20_000
OPEN_TIMEOUT_MS = 20_000
"""How long a token, and then the answer to `authenticate`, may take."""
STABLE_MS = 10_000
"""A connection that lasted this long was good: the pauses begin anew."""
REFRESH_MIN_MS = 5_000
REFRESH_MAX_MS = 24 * 60 * 60 * 1_000
REFRESH_BLIND_MS = 60_000
"""Bounds of the time to the next refresh, and that time if the clocks differ by more than the token's life."""
FULL_MS = 10_000
"""The pause after `Too many connections`: by then the server has found those that are dead."""
PING_MS = 25_000
PONG_MS = 10_000
"""The interval of pings, and how long the server may be silent after one."""
