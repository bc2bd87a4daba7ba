"""What an operator sees: engine events as progress lines, a live tree, a diff or JSON.

Texts follow Pulumi's pkg/backend/display. Displays take events (apitype.EngineEvent as dicts)
whose secrets may be readable; no display shows them unless it is told to.
"""
