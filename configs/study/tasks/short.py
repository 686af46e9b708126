"""Which documents of GSM8K the task gsm8k_short has."""


def short(documents):
    """Those whose solution has at most two calculations."""
    return documents.filter(lambda document: document["answer"].count("<<") < 3)
