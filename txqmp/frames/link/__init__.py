"""
The link: what two of our own say to each other about the connection itself, :mod:`.words`, and who
says it, :mod:`.client` and :mod:`.server`.
"""
