"""Virtual time: an event loop in which time passes only when nothing else can happen.

running       run: a program in virtual time, and now: what time it is there
on_asyncio    an asyncio event loop of that kind
on_trio       trio, with its own clock for tests and an order that the seed decides
asyncio_sets  in which order asyncio and anyio cancel what they keep in sets
limits        what ends a run that would never end
"""
