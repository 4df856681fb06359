# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random and mutated HTTP requests and JSON-RPC bodies against a real tree: `./dev fuzz`, `tests/chaos/test_fuzz.py`.

All that is sent follows from a seed and the number of the connection (`scripts.script`). A generator of our own and not
Hypothesis: 100,000 requests take minutes this way, several connections run at once, and what a failing one sent is kept
as bytes. `messages` makes bodies, `forms` puts them into HTTP, `reading` reads the answers strictly, `rules` judges,
`driver` sends.
"""
