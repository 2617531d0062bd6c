"""Every order of claims, settles, crashes and requests: graph and runner protocol, explored."""
