"""The way of a model into the manifest and onto the Hub, and the pages that are written of it.

    entry       the manifest entry of a model folder
    figures     the figures of an entry, from reports and as text
    model_card  the card of one model, with the metadata that the Hub reads
    push        publish a model on the Hub
    bundle      take a model folder into `weights/` and the manifest (a command)
    cards       write every page of a checkout that repeats the manifest (a command)
    plot        accuracy against energy, one of these pages

The two commands are for maintainers, in a checkout.
"""
