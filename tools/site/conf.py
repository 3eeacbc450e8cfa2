"Sphinx's settings for the site that tools/docs.py builds"
project,html_title = 'fastrec','fastrec'
author,project_copyright = 'The fastrec developers','The fastrec developers'
extensions = ['myst_nb']
nb_execution_mode,nb_render_markdown_format,nb_merge_streams = 'off','gfm',True
myst_enable_extensions = ['dollarmath','amsmath','attrs_inline','attrs_block','colon_fence']
myst_heading_anchors = 4

myst_heading_slug_func = 'showdoc.anchor'
mathjax_path = 'mathjax/startup.js'   # the parts that are used, in place of one file of a megabyte
mathjax3_config = dict(loader=dict(load=['core','input/tex-base','[tex]/ams','output/chtml']), tex=dict(packages=['base','ams']))
html_theme,html_static_path,html_css_files = 'sphinx_book_theme',['../../_proc/static'],['styles.css']
html_favicon,html_logo = '../../nbs/favicon.svg','../../nbs/favicon.svg'
html_context = dict(default_mode='auto')
html_sidebars = {'**': ['navbar-logo.html','icon-links.html','search-field.html','sbt-sidebar-nav.html']}
html_show_sourcelink,html_copy_source,html_show_copyright = False,False,False
html_theme_options = dict(logo=dict(text='fastrec'), use_download_button=False, use_fullscreen_button=False, home_page_in_toc=True, show_toc_level=2, show_navbar_depth=1,
    navbar_start=[], navbar_center=[], navbar_end=[], navbar_persistent=[], pygments_light_style='a11y-high-contrast-light', pygments_dark_style='a11y-high-contrast-dark')
