"""An asyncio client for Switchboard."""
