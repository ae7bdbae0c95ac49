"""Which passages of a corpus does a language model regurgitate?"""
