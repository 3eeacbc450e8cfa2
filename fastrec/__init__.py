"""Recommendations with fastai, from ratings or from clicks"""
__version__ = "0.1.0"

# as in pyproject.toml; a test compares them
_oldest = {'fastai': '2.8.12', 'torch': '2.9', 'pandas': '2.2.3', 'numpy': '1.26', 'matplotlib': '3.9', 'textalloc': '1.2.1',
           'safetensors': '0.4.3'}

def _need_versions():
    "`ImportError` that names a package which is older than fastrec needs: here, and not in the midst of a fit"
    import re
    from importlib.metadata import PackageNotFoundError,version
    def numbers(o): return [int(n) for n in re.findall(r'\d+', o.split('+')[0])[:3]]
    for name,oldest in _oldest.items():
        try: found = version(name)
        except PackageNotFoundError: continue  # whoever needs it will say so
        if found and numbers(found)<numbers(oldest):
            raise ImportError(f"fastrec needs {name} {oldest} or newer, here is {found}: pip install -U '{name}>={oldest}'")

_need_versions()

def __getattr__(name):
    "`learner`, `dot_learner` and `nn_learner`, or `load_recommender`, which needs no fastai; each is imported when it is asked for"
    if name in ('learner','dot_learner','nn_learner'): import fastrec.all as module
    elif name=='load_recommender':
        import fastrec.command.playing  # what is loaded has `play`
        import fastrec.export.loading as module
    else: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(module, name)
